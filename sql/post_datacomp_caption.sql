-- Images that the preset drops after the download, each with the first rule that says so and the value that decided it.
-- preset   datacomp_caption, version 1
-- source   DataComp (Gadre 2023, arXiv 2304.14108; baselines/apply_filter.py of its code), caption filter
-- holds    nothing: it looks at the caption only
-- not      clusters near ImageNet's images, which it was used with (a model)
-- in   $results   parquet as in download_results.sql; only rows with status 'ok' are looked at
-- out  pair_id, rule_reason, rule_value; only rows that a rule drops, unique on pair_id
select pair_id, null::varchar as rule_reason, null::varchar as rule_value,
from read_parquet($results)
where false
