-- What becomes of each candidate for the query list, one row per row of the input.
-- in   $candidates   parquet files: query, source, count, pmi, views
--      $preference   sources in the order in which they fill the list; a source that is not named is dropped
--      $max_unigrams, $max_bigrams, $max_titles   queries at most of these sources
--      $max_queries  queries at most in all
--      $numbers      add the queries '0' to '99' of source 'number'
-- out  query, source, strength (within the source: views, pmi or count; null = none), place (in the whole order, from 1; null =
--      dropped before), drop_reason (null = it is on the list); in the order of preference
-- Queries that several rows name are of the first source by preference, the others are duplicates.
with candidates as (
    select query, source, coalesce(views, pmi, count)::double as strength,
    from read_parquet($candidates)
    union all
    select range::varchar as query, 'number' as source, null as strength,
    from range(100)
    where $numbers
),

ordered as (
    select
        *,
        list_position($preference, source) as source_place,
        row_number() over (
            partition by query order by list_position($preference, source) nulls last, strength desc nulls last
        ) as copy_number,
    from candidates
),

ranked as (
    select
        *,
        row_number() over (
            partition by source, copy_number = 1 order by strength desc nulls last, query
        ) as place_in_source,
    from ordered
),

judged as (
    select
        *,
        case
            when source_place is null then 'source_not_used'
            when copy_number > 1 then 'duplicate'
            when source = 'unigram' and place_in_source > $max_unigrams then 'over_source_limit'
            when source = 'bigram' and place_in_source > $max_bigrams then 'over_source_limit'
            when source = 'title' and place_in_source > $max_titles then 'over_source_limit'
        end as reason,
    from ranked
),

placed as (
    select
        *,
        case
            when reason is null then row_number() over (
                partition by reason is null order by source_place, strength desc nulls last, query
            )
        end as place,
    from judged
)

select
    query,
    source,
    strength,
    place,
    case when reason is not null then reason when place > $max_queries then 'over_limit' end as drop_reason,
from placed
order by source_place nulls last, strength desc nulls last, query, copy_number
