-- Which queries occur in the text of each pair, as runs of whole words.
-- in   $pairs      parquet files: pair_id, caption (in mode fixed: already in its normal form, single blanks between words)
--      $prefixes   parquet of match_prefixes.sql
--      $max_bytes  longer captions are not matched, in bytes of UTF-8
--      $exact      true = mode metaclip-exact: blanks round , . ; : ? ! ` and blanks for tab, line feed and carriage return
-- out  pair_id, query_id; unique, in this order
-- A blank-padded query is a substring of the blank-padded text exactly if its words (split at each blank, so possibly empty)
-- are a run of the text's words. Every word of a text is therefore tried as the first of a query, then with the next
-- word, and so on for as long as some query goes on; only the rare query of more than 4 words is looked up as a substring.
-- Pairs that cannot match get a null text instead of a `where`: the optimiser must know that there are more texts than
-- queries, lest it build its hash tables on the texts.
with captions as (
    select pair_id, case when pair_id is not null and strlen(caption) <= $max_bytes then caption end as caption,
    from read_parquet($pairs)
),

spaced as (
    select
        pair_id,
        case
            when $exact then replace(replace(replace(replace(replace(replace(replace(
                caption, ',', ' , '), '.', ' . '), ';', ' ; '), ':', ' : '), '?', ' ? '), '!', ' ! '), '`', ' ` ')
            else caption
        end as caption,
    from captions
),

texts as (
    select
        pair_id,
        case
            when $exact then replace(replace(replace(caption, chr(9), ' '), chr(10), ' '), chr(13), ' ')
            else caption
        end as text,
    from spaced
),

split_texts as (
    select pair_id, ' ' || text || ' ' as padded, string_split(text, ' ') as words,
    from texts
),

-- One row per word of a text, with the three words that follow it (null at the end).
starts as (
    select
        pair_id,
        padded,
        unnest(words) as word_1,
        unnest(words[2:]) as word_2,
        unnest(words[3:]) as word_3,
        unnest(words[4:]) as word_4,
    from split_texts
),

runs_1 as (select word, node, query_id from read_parquet($prefixes) where depth = 1),

runs_2 as (select parent, word, node, query_id from read_parquet($prefixes) where depth = 2),

runs_3 as (select parent, word, node, query_id from read_parquet($prefixes) where depth = 3),

runs_4 as (select parent, word, query_id, longer from read_parquet($prefixes) where depth = 4),

found as (
    select
        starts.pair_id,
        starts.padded,
        [runs_1.query_id, runs_2.query_id, runs_3.query_id, runs_4.query_id] as query_ids,
        runs_4.longer,
    from starts
    inner join runs_1 on starts.word_1 = runs_1.word
    left join runs_2 on runs_1.node = runs_2.parent and starts.word_2 = runs_2.word
    left join runs_3 on runs_2.node = runs_3.parent and starts.word_3 = runs_3.word
    left join runs_4 on runs_3.node = runs_4.parent and starts.word_4 = runs_4.word
),

occurrences as (
    select
        pair_id,
        unnest(
            list_concat(query_ids, [each.query_id for each in longer if contains(padded, each.padded)])
        ) as query_id,
    from found
)

select distinct pair_id, query_id,
from occurrences
where query_id is not null
order by pair_id, query_id
