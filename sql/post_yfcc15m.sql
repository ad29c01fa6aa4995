-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   yfcc15m, version 1
-- source   CLIP (Radford 2021, arXiv 2103.00020, section 2.2)
-- holds    nothing: it looks at the title and the description only
-- not      nothing
-- in   $results   parquet as in download_results.sql; only rows with status 'ok' are looked at
-- out  pair_id, rule_reason, rule_value; only rows that a rule drops, unique on pair_id
select pair_id, null::varchar as rule_reason, null::varchar as rule_value,
from read_parquet($results)
where false
