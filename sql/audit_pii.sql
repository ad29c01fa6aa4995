-- Captions with personal data, by its kind; a caption with two kinds counts in both.
-- in   $pairs      parquet files: part, row, pii (names of kinds, as a list or joined by commas; null = none)
--      $verdicts   parquet: part, row, drop_reason (null = kept)
-- out  kind, rows, kept; unique on kind, most rows first
with kinds as (
    select part, row, unnest(list_distinct(regexp_extract_all(pii::varchar, '[A-Za-z0-9_-]+'))) as kind,
    from read_parquet($pairs)
    where pii is not null
)

select kinds.kind, count(*) as rows, count(*) filter (verdicts.drop_reason is null) as kept,
from kinds
inner join read_parquet($verdicts) as verdicts using (part, row)
group by kinds.kind
order by rows desc, kinds.kind
