-- What became of each line of the block lists.
-- in   $lines   parquet: list (hosts, urls, words, tombstones, scores or hashes), key (host, url, word, pair_id, md5 or sha256: what `value`
--               is), value (in normal form; of words only case-folded), score (null but for scores), file, line (from 1), drop_reason (null = can be used)
-- out  the same columns, drop_reason also invalid (no word in it) and duplicate; unique on (list, key, value) where drop_reason is null,
--      ordered by (list, key, value, score, file, line)
-- Words are put in the form in which blocked_pairs.sql reads captions: runs of letters and digits with single blanks between them.
-- Of several scores of one pair the lowest stands.
with texts as (
    select
        list,
        key,
        case
            when key = 'word' and drop_reason is null then trim(regexp_replace(
                regexp_replace(value, '([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])', ' \1 ', 'g'),
                '[^\p{L}\p{M}\p{N}]+', ' ', 'g'))
            else value
        end as value,
        score,
        file,
        line,
        drop_reason,
    from read_parquet($lines)
),

judged as (
    select * exclude (drop_reason), coalesce(drop_reason, case when value = '' then 'invalid' end) as drop_reason,
    from texts
),

ranked as (
    select
        *,
        row_number() over (partition by list, key, value, drop_reason is null order by score, file, line) as copy_number,
    from judged
)

select
    list,
    key,
    value,
    score,
    file,
    line,
    coalesce(drop_reason, case when copy_number > 1 then 'duplicate' end) as drop_reason,
from ranked
order by list, key, value, score, file, line
