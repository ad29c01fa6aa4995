-- One row per candidate pair of one part: the first row-local reason that drops it (null = passed), and its identities as numbers.
-- in   $pairs          parquet: part, row, source, pair_id, url, url_norm, caption, caption_key, page_opt_out; unique on (part, row)
--      $dropped        parquet: row, rule_reason, rule_value: what the preset drops, as in pre_*.sql; unique on row
--      $blocked        parquet: part, row, block_reason, block_value: what must not be in the data set; unique on (part, row)
--      $obey_opt_out   drop pairs of pages that opt out
-- out  part, row, source, pair_upper, pair_lower (the 128 bits of pair_id), url_key, caption_key (64 bits of md5), rule_reason,
--      rule_value; unique on (part, row), in this order
-- The global pass reads millions of parts of this: numbers of eight bytes, and a text only where a rule has one. The source
-- costs nothing, it is the same on all rows of a part and lies in the file once per row group.
-- The keys are the first half of md5; md5_number_lower and _upper would divide for it and take five times as long.
-- A blocked pair says so whatever else is wrong with it; then come the faults that no preset forgives, then the preset.
select
    pairs.part,
    pairs.row,
    pairs.source,
    ('0x' || left(pairs.pair_id, 16))::ubigint as pair_upper,
    ('0x' || right(pairs.pair_id, 16))::ubigint as pair_lower,
    (md5_number(pairs.url_norm) >> 64)::ubigint as url_key,
    (md5_number(pairs.caption_key) >> 64)::ubigint as caption_key,
    case
        when blocked.block_reason is not null then blocked.block_reason
        when pairs.url_norm is null then 'invalid_url'
        when pairs.caption is null or pairs.caption = '' then 'no_caption'
        when $obey_opt_out and pairs.page_opt_out is not null then 'opted_out'
        else dropped.rule_reason
    end as rule_reason,
    case
        when blocked.block_reason is not null then blocked.block_value
        when pairs.url_norm is null then left(coalesce(pairs.url, ''), 100)
        when pairs.caption is null or pairs.caption = '' then null
        when $obey_opt_out and pairs.page_opt_out is not null then pairs.page_opt_out
        else dropped.rule_value
    end as rule_value,
from read_parquet($pairs) as pairs
left join read_parquet($dropped) as dropped on pairs.row = dropped.row
left join read_parquet($blocked) as blocked on pairs.part = blocked.part and pairs.row = blocked.row
order by pairs.part, pairs.row
