-- The hosts that gave the most kept pairs.
-- in   $rows   parquet of audit_rows.sql
--      $top    hosts of the answer, at most
-- out  host, rows, kept, hosts (in all), hosts_kept (with a kept pair); unique on host, most kept first
with hosts as (
    select host, count(*) as rows, count(*) filter (kept) as kept,
    from read_parquet($rows)
    where host is not null
    group by host
),

totals as (
    select count(*) as hosts, count(*) filter (kept > 0) as hosts_kept,
    from hosts
)

select hosts.host, hosts.rows, hosts.kept, totals.hosts, totals.hosts_kept,
from hosts
cross join totals
order by kept desc, rows desc, host
limit $top
