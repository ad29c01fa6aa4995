-- How many titles were looked up at all: one row.
-- in   $hourly   parquet files: title, views
-- out  titles
select count(distinct title) as titles,
from read_parquet($hourly)
