-- What img2dataset is asked to fetch, one row per pair.
-- in   $selected   parquet: pair_id (unique), url
-- out  pair_id, url; in the order of pair_id, a hash, so that neighbours are of different hosts
select pair_id, url,
from read_parquet($selected)
order by pair_id
