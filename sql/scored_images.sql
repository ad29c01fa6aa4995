-- Images that their scores drop, of those that are not dropped before.
-- in   $results       parquet files of the downloads, as in download_results.sql: pair_id, status, sha256
--      $dropped       parquet files: pair_id (unique): what the preset and the files' own words drop, as in post_*.sql
--      $scores        parquet as in image_scores.sql
--      $is_required   drop images without a score too
-- out  pair_id, rule_reason, rule_value; unique on pair_id
-- A pair's own score and that of its image both count: the first in alphabetical order of the reasons is told.
with scores as (
    select key, value, score_reason, score_value,
    from read_parquet($scores)
),

images as (
    select results.pair_id, results.sha256,
    from read_parquet($results) as results
    anti join read_parquet($dropped) as dropped on results.pair_id = dropped.pair_id
    where results.status = 'ok'
),

hits as (
    select images.pair_id, scores.score_reason, scores.score_value,
    from images
    inner join scores on scores.key = 'pair_id' and scores.value = images.pair_id
    union all
    select images.pair_id, scores.score_reason, scores.score_value,
    from images
    inner join scores on scores.key = 'sha256' and scores.value = images.sha256
),

told as (
    select pair_id, min(row(score_reason, score_value)) filter (where score_reason is not null) as first,
    from hits
    group by pair_id
)

select
    images.pair_id,
    case when told.pair_id is null then 'no_score' else told.first[1] end as rule_reason,
    told.first[2] as rule_value,
from images
left join told on images.pair_id = told.pair_id
where told.first is not null or ($is_required and told.pair_id is null)
