-- The pairs of a part that a block list hits, each with the first reason in this order: tombstone, blocked_url, blocked_host,
-- blocked_word, low_score, no_score.
-- in   $pairs             parquet of the part: part, row, pair_id, url_norm, host, caption_key
--      $lists             parquet of block_lists.sql
--      $min_score         least score kept; null = any
--      $scores_required   drop pairs without a score
-- out  part, row, block_reason, block_value (the entry that hit, of several the longest; the score; null for no_score); unique on
--      (part, row), ordered by it
-- A host blocks its subdomains: every host is looked up with each of its endings (an IPv4 address has none).
-- A word is a run of letters and digits, and in scripts without blanks each letter is one, so that a phrase is found in a sentence.
-- Every word of a caption that starts an entry is tried with as many of the next words as some entry of that start has; only the
-- rare entry of more than four words is looked for as a substring.
with pairs as (
    select part, row, pair_id, url_norm, host, caption_key, from read_parquet($pairs)
),

-- Read at each use: a list may be larger than the memory, and each use needs only its kind.
entries as not materialized (
    select list, key, value, score, from read_parquet($lists) where drop_reason is null
),

address_hits as (
    select pairs.part, pairs.row, 1 as rank, entries.value,
    from pairs
    inner join entries on pairs.pair_id = entries.value
    where entries.list = 'tombstones' and entries.key = 'pair_id'
    union all
    select pairs.part, pairs.row, case entries.list when 'tombstones' then 1 else 2 end as rank, entries.value,
    from pairs
    inner join entries on pairs.url_norm = entries.value
    where entries.list in ('tombstones', 'urls') and entries.key = 'url'
),

split_hosts as (
    select distinct host, string_split(host, '.') as labels, from pairs where host is not null
),

host_endings as (
    select
        host,
        labels,
        unnest(case when regexp_matches(host, '(^|\.)[0-9]+$') then [1] else range(1, len(labels) + 1) end) as first_label,
    from split_hosts
),

blocked_hosts as (
    select host_endings.host, entries.value,
    from host_endings
    inner join entries on array_to_string(host_endings.labels[host_endings.first_label:], '.') = entries.value
    where entries.list = 'hosts'
),

host_hits as (
    select pairs.part, pairs.row, 3 as rank, blocked_hosts.value,
    from pairs
    inner join blocked_hosts using (host)
),

phrases as (
    select value, string_split(value, ' ') as words, from entries where list = 'words'
),

-- The first four words, and whether there are more.
phrase_starts as (
    select value, words[1] as word_1, array_to_string(words[:4], ' ') as start, least(len(words), 5) as length,
    from phrases
),

start_lengths as (
    select distinct word_1, length, from phrase_starts
),

-- The tokens of pii.py stand for what nobody wrote.
texts as (
    select
        part,
        row,
        trim(regexp_replace(
            regexp_replace(
                regexp_replace(caption_key, '<(email|ip|card|phone)>', ' ', 'g'),
                '([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])', ' \1 ', 'g'),
            '[^\p{L}\p{M}\p{N}]+', ' ', 'g')) as text,
    from pairs
    where caption_key is not null and exists (from phrases)
),

split_texts as (
    select part, row, string_split(text, ' ') as words, from texts
),

-- One row per word of a text, with the three words that follow it (null at the end).
starts as (
    select
        part,
        row,
        unnest(words) as word_1,
        unnest(words[2:]) as word_2,
        unnest(words[3:]) as word_3,
        unnest(words[4:]) as word_4,
    from split_texts
),

-- Distinct, so that a caption which says one thing a thousand times is looked at once.
runs as (
    select distinct
        starts.part,
        starts.row,
        start_lengths.length,
        case start_lengths.length
            when 1 then word_1
            when 2 then word_1 || ' ' || word_2
            when 3 then word_1 || ' ' || word_2 || ' ' || word_3
            else word_1 || ' ' || word_2 || ' ' || word_3 || ' ' || word_4
        end as start,
    from starts
    inner join start_lengths using (word_1)
),

phrase_candidates as (
    select runs.part, runs.row, phrase_starts.value, phrase_starts.length,
    from runs
    inner join phrase_starts using (start, length)
),

word_hits as (
    select candidates.part, candidates.row, 4 as rank, candidates.value,
    from phrase_candidates as candidates
    where candidates.length < 5
    union all
    select candidates.part, candidates.row, 4 as rank, candidates.value,
    from phrase_candidates as candidates
    inner join texts using (part, row)
    where candidates.length = 5 and contains(' ' || texts.text || ' ', ' ' || candidates.value || ' ')
),

scores as not materialized (
    select key, value, score, from entries where list = 'scores'
),

-- Scored both by pair and by address: the lower one stands.
found_scores as (
    select pairs.part, pairs.row, scores.score,
    from pairs
    inner join scores on pairs.pair_id = scores.value
    where scores.key = 'pair_id'
    union all
    select pairs.part, pairs.row, scores.score,
    from pairs
    inner join scores on pairs.url_norm = scores.value
    where scores.key = 'url'
),

lowest_scores as (
    select part, row, min(score) as score,
    from found_scores
    group by part, row
),

scored as (
    select pairs.part, pairs.row, lowest_scores.score,
    from pairs
    left join lowest_scores using (part, row)
),

score_hits as (
    select part, row, case when score is null then 6 else 5 end as rank, score::varchar as value,
    from scored
    where score < $min_score::double or (score is null and $scores_required)
),

hits as (
    from address_hits
    union all
    from host_hits
    union all
    from word_hits
    union all
    from score_hits
),

ranked as (
    select
        *,
        row_number() over (partition by part, row order by rank, strlen(value) desc, value) as hit_number,
    from hits
)

select
    part,
    row,
    ['tombstone', 'blocked_url', 'blocked_host', 'blocked_word', 'low_score', 'no_score'][rank] as block_reason,
    value as block_value,
from ranked
where hit_number = 1
order by part, row
