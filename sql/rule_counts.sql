-- Rows per row-local verdict.
-- in   $ruled   parquet files as in ruled_pairs.sql
-- out  drop_reason (null = passed), rows; unique on drop_reason
select rule_reason as drop_reason, count(*) as rows,
from read_parquet($ruled)
group by rule_reason
order by rows desc, rule_reason
