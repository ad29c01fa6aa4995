-- Rows of a part per reason for which a block list hits them.
-- in   $pairs     parquet of the part
--      $blocked   parquet of blocked_pairs.sql
-- out  block_reason (null = no list hits them), rows; unique on block_reason, only reasons with rows
with reasons as (
    select block_reason, count(*) as rows,
    from read_parquet($blocked)
    group by block_reason
),

all_rows as (
    select count(*) as rows, from read_parquet($pairs)
)

select block_reason, rows, from reasons
union all
select null as block_reason, all_rows.rows - coalesce((select sum(rows) from reasons), 0)::bigint as rows,
from all_rows
order by rows desc, block_reason
