-- What became of the candidates of each source of queries.
-- in   $verdicts   parquet of query_verdicts.sql
-- out  source, drop_reason (null = on the list), rows; unique on (source, drop_reason), in this order
select source, drop_reason, count(*) as rows,
from read_parquet($verdicts)
group by source, drop_reason
order by source, drop_reason nulls first
