-- The failed rows of a download that another try may mend, one row per pair.
-- in   $selected         parquet: pair_id (unique), url
--      $results          parquet as in download_results.sql
--      $passing_reasons  statuses after which another try may end otherwise
-- out  pair_id, url, retry_after_s (null = the host did not say when); in the order of pair_id
select selected.pair_id, selected.url, results.retry_after_s,
from read_parquet($selected) as selected
inner join read_parquet($results) as results using (pair_id)
where results.status in (select unnest($passing_reasons))
order by selected.pair_id
