-- Words of a text with the word that follows each: one row per distinct pair of neighbours.
-- in   $lines            parquet file: line
--      $max_word_chars   longer runs of letters are no words, in characters
-- out  word, next_word (null at the end of a phrase), count; unique on (word, next_word), in this order
-- Every occurrence of a word is in exactly one row, so the sum over next_word is the word's own count. Neighbours never stand
-- across punctuation. A word is of letters, marks and digits, with hyphens and apostrophes inside.
with phrases as (
    select unnest(regexp_extract_all(line, '[\p{L}\p{M}\p{N}''’ \t-]+')) as phrase,
    from read_parquet($lines)
),

phrase_words as (
    select
        [
            trim(word, '''’-') for word in string_split(replace(phrase, chr(9), ' '), ' ')
            if trim(word, '''’-') <> '' and length(word) <= $max_word_chars
        ] as words,
    from phrases
),

neighbours as (
    select unnest(words) as word, unnest(words[2:]) as next_word,
    from phrase_words
)

select word, next_word, count(*) as count,
from neighbours
where word is not null
group by word, next_word
order by word, next_word
