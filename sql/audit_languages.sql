-- The languages of the captions.
-- in   $rows   parquet of audit_rows.sql
-- out  lang (null = none was found), rows, kept, mean_score (0 to 1, null without a score); unique on lang, most rows first
-- The mean is taken of decimals, for a sum of floats depends on the order in which threads add.
select
    lang,
    count(*) as rows,
    count(*) filter (kept) as kept,
    round(avg(lang_score::decimal(18, 6)), 4)::double as mean_score,
from read_parquet($rows)
group by lang
order by rows desc, lang nulls last
