-- Rows per verdict.
-- in   $verdicts   parquet with a column drop_reason (null = kept)
-- out  drop_reason, rows; unique on drop_reason
select drop_reason, count(*) as rows,
from read_parquet($verdicts)
group by drop_reason
order by rows desc, drop_reason
