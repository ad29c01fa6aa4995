-- Titles that people look up often enough, as candidates for queries.
-- in   $hourly      parquet files: title, views; a title in many rows
--      $min_views   fewest views over all rows
-- out  query, source ('title'), count (null), pmi (null), views; unique on query, in this order
select title as query, 'title' as source, null::bigint as count, null::double as pmi, sum(views)::bigint as views,
from read_parquet($hourly)
group by title
having sum(views) >= $min_views
order by title
