-- The sources with the most rows, or the kinds of source.
-- in   $sources   parquet of audit_sources.sql
--      $by_kind   one row per kind instead of one per source
--      $top       rows of the answer, at most
-- out  source_kind, source (null by kind), sources (of this row), rows_in, rows_kept, dropped (map from reason to rows, most
--      first); rows_in = rows_kept + sum of dropped; unique on (source_kind, source), most rows first
with reasons as (
    select
        source_kind,
        if($by_kind, null, source) as source,
        drop_reason,
        sum(rows)::bigint as rows,
    from read_parquet($sources)
    group by all
),

kinds as (
    select source_kind, count(distinct source) as sources,
    from read_parquet($sources)
    group by source_kind
)

select
    source_kind,
    source,
    if($by_kind, any_value(kinds.sources), 1) as sources,
    sum(rows)::bigint as rows_in,
    coalesce(sum(rows) filter (drop_reason is null), 0)::bigint as rows_kept,
    coalesce(
        map_from_entries(list((drop_reason, rows) order by rows desc, drop_reason) filter (drop_reason is not null)),
        map([]::varchar[], []::bigint[])
    ) as dropped,
from reasons
inner join kinds using (source_kind)
group by source_kind, source
order by rows_in desc, source_kind, source
limit $top
