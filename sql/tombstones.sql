-- All that was ever asked to be taken down: what was known, and the usable lines of new lists.
-- in   $known   parquet files as this writes
--      $lists   parquet as in block_lists.sql
-- out  list (hosts, urls, tombstones or sha256), key (host, url, pair_id or sha256), value, score and drop_reason (null: it is read as a
--      block list); unique on (list, key, value), ordered by it
with entries as (
    select list, key, value,
    from read_parquet($known)
    union
    select list, key, value,
    from read_parquet($lists)
    where drop_reason is null
)

select list, key, value, null::double as score, null::varchar as drop_reason,
from entries
order by list, key, value
