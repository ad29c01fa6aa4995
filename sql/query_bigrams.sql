-- Bi-grams of high pointwise mutual information, as candidates for queries.
-- in   $ngrams      parquet files: word, next_word, count
--      $min_count   fewest occurrences over all files
--      $min_pmi     least pointwise mutual information, in bits
-- out  query, source ('bigram'), count, pmi, views (null); unique on query, in this order
-- pmi(a, b) = log2(count(a b) * words / (count(a) * count(b))), with `words` the number of words counted.
with words as (
    select word, sum(count)::double as count,
    from read_parquet($ngrams)
    group by word
),

bigrams as (
    select word, next_word, sum(count)::bigint as count,
    from read_parquet($ngrams)
    where next_word is not null
    group by word, next_word
    having sum(count) >= $min_count
),

scored as (
    select
        bigrams.word || ' ' || bigrams.next_word as query,
        bigrams.count,
        log2(bigrams.count / firsts.count * ((select sum(count) from words) / seconds.count)) as pmi,
    from bigrams
    inner join words as firsts using (word)
    inner join words as seconds on bigrams.next_word = seconds.word
)

select query, 'bigram' as source, count, pmi, null::bigint as views,
from scored
where pmi >= $min_pmi
order by query
