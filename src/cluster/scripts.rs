//! Lua scripts, which Redis runs atomically. All of them use Redis's own time (`PX`, `PTTL`): no node's clock is
//! ever compared with another's, so a wrong clock does no harm.
//!
//! A flight's key holds `?token` (taken, not yet sent), `>token` (on its way) or `=answer` (landed a moment ago).

use std::sync::LazyLock;

use redis::Script;

/// Takes a flight, or returns its state and when its lease ends (ms).
/// KEYS: flight, waiting nodes, cool-down. ARGV: token, lease (ms), node, `1` to look past a landed one.
pub(super) static BOARD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local cooling = redis.call('PTTL', KEYS[3])
if cooling > 0 then return {'cooling', tostring(cooling)} end
local held = redis.call('GET', KEYS[1])
local state = held and string.sub(held, 1, 1)
local rest = held and string.sub(held, 2)
if not held or rest == ARGV[1] or (state == '=' and ARGV[4] == '1') then
  redis.call('SET', KEYS[1], '?' .. ARGV[1], 'PX', ARGV[2])
  return {'taken', ''}
end
if state == '=' then return {'landed', rest} end
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], 600000)
local left = tostring(redis.call('PTTL', KEYS[1]))
if state == '>' then return {'departed', left} end
return {'held', left}",
    )
});

/// Adds to the stream of learned entries, and trims the oldest ones where it holds more bytes than allowed. Each entry has
/// the sum of all before it, so that the size of the stream is a difference.
/// KEYS: stream. ARGV: most entries, most bytes, how long it stays (ms), node, kind, name, body.
pub(super) static LEARN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local function sum_of(entry)
  if not entry then return 0 end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'sum' then return tonumber(entry[2][i + 1]) or 0 end
  end
  return 0
end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local sum = sum_of(last) + #ARGV[6] + #ARGV[7]
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'node', ARGV[4], 'kind', ARGV[5], 'name', ARGV[6],
  'body', ARGV[7], 'sum', string.format('%.0f', sum))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for _ = 1, 1000 do
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  local left = redis.call('XLEN', KEYS[1])
  if left < 2 or sum - sum_of(first) <= tonumber(ARGV[2]) then break end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', left - 1)
end
return 1",
    )
});

/// Marks the request of a flight as sent, so that waiting nodes begin to check.
/// KEYS: flight, waiting nodes. ARGV: token, lease (ms), channel before a node's name, subject.
pub(super) static DEPART: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '>' .. ARGV[1], 'PX', ARGV[2])
for _, node in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('PUBLISH', ARGV[3] .. node, ARGV[4] .. ' departed')
end
return 1",
    )
});

/// Ends a flight: waiting nodes get the answer, and nodes that join within the lease find it.
/// KEYS: flight, waiting nodes. ARGV: token, lease (ms), channel before a node's name, subject, answer.
pub(super) static LAND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 2) ~= ARGV[1] then return 0 end
if ARGV[5] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], '=' .. ARGV[5], 'PX', ARGV[2])
end
for _, node in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('PUBLISH', ARGV[3] .. node, ARGV[4] .. ' landed ' .. ARGV[5])
end
redis.call('DEL', KEYS[2])
return 1",
    )
});

/// Ends a cool-down, and removes a flight that landed a moment ago; one under way stays.
/// KEYS: flight, cool-down.
pub(super) static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 1) == '=' then redis.call('DEL', KEYS[1]) end
return redis.call('DEL', KEYS[2])",
    )
});

/// Keeps a key for another lease; takes it again if it was lost, as by a flush.
/// KEYS: the key. ARGV: token, lease (ms), prefix of the token if it must be written anew.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = redis.call('GET', KEYS[1])
if not held then
  redis.call('SET', KEYS[1], ARGV[3] .. ARGV[1], 'PX', ARGV[2])
  return 1
end
if held ~= ARGV[1] and string.sub(held, 2) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Takes a permit for a request to one canvas service, or queues for one; returns when the first lease ends (ms).
/// KEYS: breaker, queue, place 1, place 2, … ARGV: token (`node/ticket`), lease (ms).
pub(super) static PLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local open = redis.call('PTTL', KEYS[1])
if open > 0 then
  redis.call('LREM', KEYS[2], 0, ARGV[1])
  return {'open', tostring(open)}
end
for i = 3, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[1] then return {'granted', KEYS[i]} end
end
local first = tonumber(ARGV[2])
for i = 3, #KEYS do
  if redis.call('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2]) then
    redis.call('LREM', KEYS[2], 0, ARGV[1])
    return {'granted', KEYS[i]}
  end
  first = math.min(first, redis.call('PTTL', KEYS[i]))
end
if not redis.call('LPOS', KEYS[2], ARGV[1]) then redis.call('RPUSH', KEYS[2], ARGV[1]) end
redis.call('PEXPIRE', KEYS[2], 600000)
return {'queued', tostring(first)}",
    )
});

/// Passes a permit to the first viewer's request or to the longest waiter, on any node, or gives it back. Every fourth goes
/// to background work, so that it does not starve.
/// KEYS: permit, first queue, queue, turns. ARGV: token, lease (ms), prefix of a node's channel, 1: PUBLISH does not tell
/// whether a node received the message, subject.
pub(super) static LEAVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('LREM', KEYS[3], 0, ARGV[1])
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
while true do
  local turn = redis.call('INCR', KEYS[4])
  redis.call('PEXPIRE', KEYS[4], 600000)
  local a, b = KEYS[2], KEYS[3]
  if turn % 4 == 0 then a, b = b, a end
  local waiter = redis.call('LPOP', a) or redis.call('LPOP', b)
  if not waiter then
    redis.call('DEL', KEYS[1])
    return 1
  end
  redis.call('SET', KEYS[1], waiter, 'PX', ARGV[2])
  local node = string.match(waiter, '^[^/]*')
  local heard = redis.call('PUBLISH', ARGV[3] .. node, waiter .. ' granted ' .. KEYS[1] .. ' ' .. ARGV[5])
  if heard > 0 or ARGV[4] == '1' then return 1 end
end",
    )
});

/// Counts one more within a window; returns the count.
/// KEYS: counter. ARGV: window (ms).
pub(super) static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count",
    )
});

/// Adds an expired identifier; returns 1 to the node with which a mass expiry begins.
/// KEYS: the identifiers (`HyperLogLog`), the mark. ARGV: identifier, window (ms), threshold, how long it lasts (ms).
pub(super) static EXPIRED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  return 0
end
redis.call('PFADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if redis.call('PFCOUNT', KEYS[1]) < tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[4])
redis.call('DEL', KEYS[1])
return 1",
    )
});

/// Opens a job, or returns the work of the job that has this name.
/// KEYS: the job. ARGV: its work, how long it is remembered (ms).
pub(super) static OPEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local other = redis.call('GET', KEYS[1])
if other and other ~= ARGV[1] then return other end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ''",
    )
});

/// Claims one unit of a job; returns `ours`, `elsewhere` (claimed by another process), or `done` with its result.
/// KEYS: units done, the claim. ARGV: unit, token, lease (ms).
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local done = redis.call('HGET', KEYS[1], ARGV[1])
if done then return {'done', done} end
if redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then return {'ours', ''} end
if redis.call('GET', KEYS[2]) == ARGV[2] then return {'ours', ''} end
return {'elsewhere', ''}",
    )
});

/// Gives a claim back, with a result or (empty) without. The first result is kept.
/// KEYS: units done, the claim, the job. ARGV: unit, token, result, how long it is remembered (ms).
pub(super) static FINISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[3] ~= '' then
  redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 1",
    )
});

/// Keeps claims for another lease, also those that were flushed.
/// KEYS: the claims. ARGV: token, lease (ms).
pub(super) static RENEW_CLAIMS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for _, claim in ipairs(KEYS) do
  local held = redis.call('GET', claim)
  if not held or held == ARGV[1] then redis.call('SET', claim, ARGV[1], 'PX', ARGV[2]) end
end
return 1",
    )
});
