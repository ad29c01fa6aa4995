-- The texts that are matched against the query list: the pairs of one part that the rules kept.
-- in   $pairs      parquet of one part: part, row, pair_id, caption
--      $verdicts   parquet: part, row, drop_reason
-- out  pair_id, caption; unique on pair_id, in this order
select pairs.pair_id, pairs.caption,
from read_parquet($pairs) as pairs
inner join read_parquet($verdicts) as verdicts using (part, row)
where verdicts.drop_reason is null
order by pairs.pair_id
