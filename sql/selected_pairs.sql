-- The pairs that are worth a download, one row each, in the order of (pair_id).
-- in   $pairs       parquet files as in pair_verdicts.sql
--      $verdicts    parquet: part, row, drop_reason
--      $seed        seed of the choice
--      $max_pairs   pairs kept at most; 0 = all
-- out  pair_id, url, url_norm, host, caption, page_url, text_key, source, row, lang, lang_score; unique on pair_id
-- The choice is the smallest hashes of (seed, pair_id): the same pairs whatever the order of the input, and a larger
-- $max_pairs only adds to a smaller one.
with kept as (
    select pairs.*,
    from read_parquet($pairs) as pairs
    inner join read_parquet($verdicts) as verdicts using (part, row)
    where verdicts.drop_reason is null
),

numbered as (
    select *, row_number() over (order by md5($seed::varchar || ':' || pair_id), pair_id) as draw,
    from kept
)

select pair_id, url, url_norm, host, caption, page_url, text_key, source, row, lang, lang_score,
from numbered
where $max_pairs = 0 or draw <= $max_pairs
order by pair_id
