-- Which queries occur in the text of each pair, as runs of whole words.
-- in   $pairs      parquet files: pair_id, caption (in mode fixed: already in its normal form, single blanks between words)
--      $prefixes   parquet of match_prefixes.sql
--      $max_bytes  longer captions are not matched, in bytes of UTF-8
--      $exact      true = mode metaclip-exact: blanks round , . ; : ? ! ` and blanks for tab, line feed and carriage return
-- out  pair_id, query_id; unique, in this order
-- A blank-padded query is a substring of the blank-padded text exactly if its words (split at each blank, so possibly empty)
-- are a run of the text's words. Every word of a text is therefore tried as the first of a query, then with the next
-- word, and so on for as long as some query goes on; only the rare query of more than 4 words is looked up as a substring.
with spaced as (
    select
        pair_id,
        replace(replace(replace(replace(replace(replace(replace(
            caption, ',', ' , '), '.', ' . '), ';', ' ; '), ':', ' : '), '?', ' ? '), '!', ' ! '), '`', ' ` ')
        as caption,
    from read_parquet($pairs)
    where $exact and strlen(caption) <= $max_bytes and pair_id is not null
),

texts as (
    select pair_id, replace(replace(replace(caption, chr(9), ' '), chr(10), ' '), chr(13), ' ') as text,
    from spaced
    union all
    select pair_id, caption as text,
    from read_parquet($pairs)
    where not $exact and caption is not null and pair_id is not null
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

prefixes_1 as (select word_1, query_id, extends from read_parquet($prefixes) where depth = 1),

prefixes_2 as (select word_1, word_2, query_id, extends from read_parquet($prefixes) where depth = 2),

prefixes_3 as (select word_1, word_2, word_3, query_id, extends from read_parquet($prefixes) where depth = 3),

prefixes_4 as (select word_1, word_2, word_3, word_4, query_id, longer from read_parquet($prefixes) where depth = 4),

found as (
    select
        starts.pair_id,
        starts.padded,
        [prefixes_1.query_id, prefixes_2.query_id, prefixes_3.query_id, prefixes_4.query_id] as query_ids,
        prefixes_4.longer,
    from starts
    inner join prefixes_1 on starts.word_1 = prefixes_1.word_1
    left join prefixes_2
        on prefixes_1.extends
        and starts.word_1 = prefixes_2.word_1
        and starts.word_2 = prefixes_2.word_2
    left join prefixes_3
        on prefixes_2.extends
        and starts.word_1 = prefixes_3.word_1
        and starts.word_2 = prefixes_3.word_2
        and starts.word_3 = prefixes_3.word_3
    left join prefixes_4
        on prefixes_3.extends
        and starts.word_1 = prefixes_4.word_1
        and starts.word_2 = prefixes_4.word_2
        and starts.word_3 = prefixes_4.word_3
        and starts.word_4 = prefixes_4.word_4
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
