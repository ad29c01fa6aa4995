-- How much text was counted: one row.
-- in   $ngrams   parquet files: word, next_word, count
-- out  words (occurrences), distinct_words, distinct_bigrams
with pairs as (
    select word, next_word, sum(count) as count,
    from read_parquet($ngrams)
    group by word, next_word
)

select
    coalesce(sum(count), 0)::bigint as words,
    count(distinct word) as distinct_words,
    count(next_word) as distinct_bigrams,
from pairs
