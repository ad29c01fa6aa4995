-- Frequent words, as candidates for queries.
-- in   $ngrams      parquet files: word, next_word, count
--      $min_count   fewest occurrences over all files
-- out  query, source ('unigram'), count, pmi (null), views (null); unique on query, in this order
select word as query, 'unigram' as source, sum(count)::bigint as count, null::double as pmi, null::bigint as views,
from read_parquet($ngrams)
group by word
having sum(count) >= $min_count
order by word
