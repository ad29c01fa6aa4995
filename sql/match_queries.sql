-- What becomes of each query in the matching, one row per query.
-- in   $queries   parquet: query_id (unique), query, normal (the query in the form in which the text is matched)
--      $exact     true = mode metaclip-exact
-- out  query_id, query (in that form), drop_reason (null = it is matched); unique on query_id, in this order
-- In mode metaclip-exact the text gets blanks round the seven marks and loses its tabs, the query does not: a query with a
-- mark inside a word can never match. In mode fixed, queries of one normal form are one query, the first by query_id.
with ranked as (
    select query_id, normal, row_number() over (partition by normal order by query_id) as copy_number,
    from read_parquet($queries)
)

select
    query_id,
    normal as query,
    case
        when $exact and regexp_matches(normal, '[^ ][,.;:?!`]|[,.;:?!`][^ ]|[\t\n\r]') then 'never_matches'
        when not $exact and normal = '' then 'no_words'
        when copy_number > 1 then 'same_normal_form'
    end as drop_reason,
from ranked
order by query_id
