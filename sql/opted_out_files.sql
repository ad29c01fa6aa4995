-- Images whose own XMP says no, of those that the preset lets pass.
-- in   $results   parquet files of the downloads, as in download_results.sql: pair_id, status, file_opt_out
--      $dropped   parquet: pair_id (unique): what the preset drops, as in post_*.sql
-- out  pair_id, rule_reason, rule_value (DMI-PROHIBITED..., tdm:reservation); unique on pair_id
select
    results.pair_id,
    'opted_out_file' as rule_reason,
    results.file_opt_out as rule_value,
from read_parquet($results) as results
anti join read_parquet($dropped) as dropped on results.pair_id = dropped.pair_id
where results.status = 'ok' and results.file_opt_out is not null
