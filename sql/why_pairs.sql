-- Candidate pairs that a person asks about, with the verdict of the rules.
-- in   $pairs      parquet files as in pair_verdicts.sql
--      $verdicts   parquet: part, row, drop_reason, decided_by
--      $wanted     a URL as found, or a pair_id
--      $wanted_norm  the same URL in normal form (null if it is no URL)
-- out  part, source, row, pair_id, url, caption_raw, page_url, text_key, drop_reason, decided_by; unique on (part, row)
select
    pairs.part, pairs.source, pairs.row, pairs.pair_id, pairs.url, pairs.caption_raw, pairs.page_url, pairs.text_key,
    verdicts.drop_reason, verdicts.decided_by,
from read_parquet($pairs) as pairs
inner join read_parquet($verdicts) as verdicts using (part, row)
where pairs.pair_id = $wanted or pairs.url = $wanted or pairs.url_norm = $wanted_norm or pairs.page_url = $wanted
order by pairs.part, pairs.row
