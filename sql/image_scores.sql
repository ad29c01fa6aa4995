-- The pairs and images that have a score, each with the first bound that it breaks.
-- in   $lines           parquet: pair_id, sha256 (one of them may be null), nsfw, watermark, aesthetic, clip (null or NaN: not scored)
--      $max_nsfw, $max_watermark, $min_aesthetic, $min_clip   bounds; null = none
-- out  key (pair_id or sha256), value, score_reason (null: within the bounds), score_value; unique on (key, value), ordered by it
-- Of several scores of one pair or image the worst stands. A row with both keys is the pair's.
with lines as (
    select
        case when pair_id is not null then 'pair_id' else 'sha256' end as key,
        lower(coalesce(pair_id, sha256)) as value,
        max(nsfw) filter (where not isnan(nsfw)) as nsfw,
        max(watermark) filter (where not isnan(watermark)) as watermark,
        min(aesthetic) filter (where not isnan(aesthetic)) as aesthetic,
        min(clip) filter (where not isnan(clip)) as clip,
    from read_parquet($lines)
    where coalesce(pair_id, sha256) is not null
    group by all
),

judged as (
    select
        *,
        case
            when nsfw > $max_nsfw then 'nsfw_score'
            when watermark > $max_watermark then 'watermark_score'
            when aesthetic < $min_aesthetic then 'aesthetic_score'
            when clip < $min_clip then 'clip_score'
        end as score_reason,
    from lines
    where coalesce(nsfw, watermark, aesthetic, clip) is not null
)

select
    key,
    value,
    score_reason,
    case score_reason
        when 'nsfw_score' then round(nsfw, 4)::varchar
        when 'watermark_score' then round(watermark, 4)::varchar
        when 'aesthetic_score' then round(aesthetic, 4)::varchar
        when 'clip_score' then round(clip, 4)::varchar
    end as score_value,
from judged
order by key, value
