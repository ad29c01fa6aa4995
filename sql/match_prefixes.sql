-- The words that queries begin with, as a trie of depth 4: one row per distinct run of 1 to 4 first words.
-- in   $queries   parquet: query_id (unique), query (words separated by single blanks, in the form in which the text is matched)
-- out  depth, parent (node of the run without its last word; 0 at depth 1), word (the last word), node (null if no query goes on
--      from here), query_id (of the query that is exactly this run, else null), longer (at depth 4: the longer queries, as
--      query_id and ' query '); unique on (parent, word), in the order of (depth, parent, word)
with queries as (
    select query_id, query, string_split(query, ' ') as words,
    from read_parquet($queries)
),

beginnings as (
    select query_id, query, words, unnest(range(1, least(len(words), 4) + 1)) as depth,
    from queries
),

runs as (
    select
        depth,
        words[:depth] as run,
        min(query_id) filter (where len(words) = depth) as query_id,
        bool_or(len(words) > depth) as goes_on,
        list({'query_id': query_id, 'padded': ' ' || query || ' '} order by query_id)
            filter (where depth = 4 and len(words) > 4) as longer,
    from beginnings
    group by depth, words[:depth]
),

nodes as (
    select *, (row_number() over (order by depth, run))::integer as node,
    from runs
)

select
    nodes.depth::tinyint as depth,
    coalesce(parents.node, 0) as parent,
    nodes.run[nodes.depth] as word,
    case when nodes.goes_on then nodes.node end as node,
    nodes.query_id,
    nodes.longer,
from nodes
left join nodes as parents on nodes.run[:nodes.depth - 1] = parents.run
order by nodes.depth, parent, word
