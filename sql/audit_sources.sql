-- What became of the rows of each source.
-- in   $verdicts   parquet: source, drop_reason (null = kept)
--      $preset     name of the rules that judged, so that tables of several data sets can be laid together
-- out  preset, source_kind (what stands before the ':' of source), source, drop_reason, rows; unique on (source, drop_reason),
--      in the order of source, most rows first
select $preset::varchar as preset, split_part(source, ':', 1) as source_kind, source, drop_reason, count(*) as rows,
from read_parquet($verdicts)
group by source, drop_reason
order by source, rows desc, drop_reason
