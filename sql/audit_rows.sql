-- The judged rows with the few narrow columns that the audit counts, so that the join is done once.
-- in   $pairs      parquet files: part, row, host, chars, words, lang, lang_score
--      $verdicts   parquet: part, row, drop_reason (null = kept)
-- out  host, chars, words, lang, lang_score, kept; one row per row of the verdicts, in no order
select
    pairs.host,
    pairs.chars,
    pairs.words,
    pairs.lang,
    pairs.lang_score,
    verdicts.drop_reason is null as kept,
from read_parquet($pairs) as pairs
inner join read_parquet($verdicts) as verdicts using (part, row)
