-- A few kept rows and a few of every reason, to look at.
-- in   $pairs       parquet files: part, row, source, host, caption
--      $verdicts    parquet: part, row, pair_id, drop_reason (null = kept), decided_by
--      $per_reason  rows of each reason, at most
--      $withheld    reasons of which none is shown
--      $max_chars   a longer caption is cut, in characters
-- out  drop_reason, decided_by, pair_id, source, host, caption; kept ones first, then by reason, in the order of the choice
-- The choice is the smallest hashes of pair_id and the row's number, for copies of one pair have one pair_id. arg_min holds only
-- the chosen in memory.
with chosen as (
    select
        drop_reason,
        unnest(
            arg_min(
                {'part': part, 'row': row, 'pair_id': pair_id, 'decided_by': left(decided_by, $max_chars)},
                md5(concat_ws(':', pair_id, part, row)),
                $per_reason
            )
        ) as sample,
    from read_parquet($verdicts)
    where drop_reason is null or not list_contains($withheld, drop_reason)
    group by drop_reason
)

select
    chosen.drop_reason,
    chosen.sample.decided_by as decided_by,
    chosen.sample.pair_id as pair_id,
    pairs.source,
    pairs.host,
    left(pairs.caption, $max_chars) as caption,
from chosen
inner join read_parquet($pairs) as pairs on pairs.part = chosen.sample.part and pairs.row = chosen.sample.row
order by chosen.drop_reason nulls first, md5(concat_ws(':', pairs.pair_id, pairs.part, pairs.row))
