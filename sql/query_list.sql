-- The query list, with all that the sources know of each query.
-- in   $verdicts     parquet of query_verdicts.sql
--      $candidates   parquet files: query, source, count, pmi, views
--      $preference   sources in the order in which they fill the list
-- out  query_id (from 0, in the order of preference), query, sources (in that order), count, pmi, views (null = unknown); unique
--      on query_id and on query, in the order of query_id
with facts as (
    select
        query,
        max(count) as count,
        max(pmi) as pmi,
        max(views) as views,
    from read_parquet($candidates)
    group by query
),

-- Ordered lists do not spill, but there are no more than a few names per query.
sources as (
    select query, list_distinct(list(source)) as sources,
    from read_parquet($verdicts)
    where drop_reason is null or drop_reason = 'duplicate'
    group by query
)

select
    (verdicts.place - 1)::integer as query_id,
    verdicts.query,
    [source for source in $preference if list_contains(sources.sources, source)] as sources,
    facts.count,
    facts.pmi,
    facts.views,
from read_parquet($verdicts) as verdicts
inner join sources using (query)
left join facts using (query)
where verdicts.drop_reason is null
order by query_id
