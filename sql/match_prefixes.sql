-- The words that queries begin with, as a trie of depth 4: one row per distinct run of 1 to 4 first words.
-- in   $queries   parquet: query_id (unique), query (words separated by single blanks, in the form in which the text is matched)
-- out  depth, word_1..word_4 (null beyond depth), query_id (of the query that is exactly these words, else null),
--      extends (whether a longer query begins with them), longer (at depth 4: the longer queries, as query_id and ' query ');
--      unique on (depth, word_1..word_4)
with queries as (
    select query_id, query, string_split(query, ' ') as words,
    from read_parquet($queries)
),

beginnings as (
    select 1 as depth, words[1] as word_1, null as word_2, null as word_3, null as word_4, query_id, query, len(words) as length,
    from queries
    union all
    select 2, words[1], words[2], null, null, query_id, query, len(words),
    from queries
    where len(words) >= 2
    union all
    select 3, words[1], words[2], words[3], null, query_id, query, len(words),
    from queries
    where len(words) >= 3
    union all
    select 4, words[1], words[2], words[3], words[4], query_id, query, len(words),
    from queries
    where len(words) >= 4
)

select
    depth, word_1, word_2, word_3, word_4,
    min(query_id) filter (where length = depth) as query_id,
    bool_or(length > depth) as extends,
    list({'query_id': query_id, 'padded': ' ' || query || ' '} order by query_id) filter (where depth = 4 and length > 4) as longer,
from beginnings
group by depth, word_1, word_2, word_3, word_4
order by depth, word_1, word_2, word_3, word_4
