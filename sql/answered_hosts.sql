-- Some hosts that answered, the same ones each time: a URL of each.
-- in   $selected   parquet: pair_id (unique), url
--      $results    parquet as in download_results.sql
--      $most       so many hosts at most
-- out  url
with answered as (
    select selected.url, regexp_extract(selected.url, '^[a-zA-Z]+://([^/?#]+)', 1) as host,
    from read_parquet($selected) as selected
    inner join read_parquet($results) as results using (pair_id)
    where results.status = 'ok' or starts_with(results.status, 'http_')
)

select min(url) as url,
from answered
group by host
order by md5(host), host
limit $most
