#!/usr/bin/env bash
# A Slurm of one node on this machine, out of Debian's packages, in a folder of its own; no systemd, no cgroups.
#   slurm_node.sh start FOLDER    writes FOLDER/slurm.conf, starts munged, slurmctld and slurmd
#   slurm_node.sh stop FOLDER     ends the three that were started
# Commands find it by SLURM_CONF=FOLDER/slurm.conf. Needs root: slurmd starts jobs as their users.
set -euo pipefail
verb=$1 folder=$2
host=$(hostname)
export SLURM_CONF=$folder/slurm.conf

start() {
  mkdir -p "$folder"/{state,spool,munge}
  chmod 711 "$folder/munge"
  dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
  chmod 600 "$folder/munge/key"
  munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  cat > "$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((20000 + $$ % 20000))
SlurmdPort=$((20001 + $$ % 20000))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=10
MinJobAge=10
MaxArraySize=4
# more CPUs than the machine may have: jobs of the tests are small
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
  # nothing here uses cgroups, yet slurmd opens a plugin for them; only later versions can do without
  if [[ $(slurmd -V) < "slurm-wlm 23.11" ]]; then plugin=cgroup/v1; else plugin=disabled; fi
  echo "CgroupPlugin=$plugin" > "$folder/cgroup.conf"
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    if timeout 10 sinfo --noheader --format %t 2>/dev/null | grep -q '^idle'; then return; fi
    sleep 0.5
  done
  echo "no node of this Slurm is idle: $(sinfo 2>&1 | tail -1); $(tail -n 2 "$folder/slurmctld.log"; tail -n 2 "$folder/slurmd.log")" >&2
  stop
  exit 1
}

stop() {
  timeout 20 scancel --user root 2>/dev/null || true
  for file in "$folder"/{slurmd.pid,slurmctld.pid,munge/pid}; do
    if [ -s "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

"$verb"
