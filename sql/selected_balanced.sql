-- The pairs that are worth a download after balancing, one row each, in the order of (pair_id).
-- in   $pairs       parquet files as in pair_verdicts.sql
--      $verdicts    parquet: part, row, drop_reason
--      $balanced    parquet files of balance_pairs.sql
--      $seed        seed of the choice
--      $max_pairs   pairs kept at most; 0 = all
-- out  as in selected_pairs.sql, and query (that let the pair in), keep_probability; unique on pair_id
with balanced as (
    select pair_id, query, keep_probability,
    from read_parquet($balanced)
    where kept
),

kept as (
    select pairs.*, balanced.query, balanced.keep_probability,
    from read_parquet($pairs) as pairs
    inner join read_parquet($verdicts) as verdicts using (part, row)
    inner join balanced on pairs.pair_id = balanced.pair_id
    where verdicts.drop_reason is null
),

numbered as (
    select *, row_number() over (order by md5($seed::varchar || ':' || pair_id), pair_id) as draw,
    from kept
)

select pair_id, url, url_norm, host, caption, page_url, text_key, source, row, lang, lang_score, query, keep_probability,
from numbered
where $max_pairs = 0 or draw <= $max_pairs
order by pair_id
