-- The queries that take part in the matching.
-- in   $verdicts   parquet of match_queries.sql
-- out  query_id, query; unique, in this order
select query_id, query,
from read_parquet($verdicts)
where drop_reason is null
order by query_id
