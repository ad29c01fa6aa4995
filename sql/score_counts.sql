-- Scored pairs and images by the bound that they break.
-- in   $scores   parquet as in image_scores.sql
-- out  drop_reason (null: none), rows; unique on drop_reason
select score_reason as drop_reason, count(*) as rows,
from read_parquet($scores)
group by score_reason
order by rows desc, drop_reason
