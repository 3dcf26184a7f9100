-- Decides a batch of takes, each from all of its token buckets or from none. Specified in lua/SPEC.md.
--
-- KEYS    the distinct bucket keys of the batch, at most 4096 (they are unpacked onto the Lua stack)
-- ARGV    one MessagePack array of integers: the number of limits, then for each limit: tokens, period_us, burst
--         then for each take: its head, and for each of its buckets: key (index into KEYS), limit (index into the
--         limits), cost in tokens. The head is the number of its buckets, plus 128 for a refund, which returns the
--         costs, or 256 for a charge, which takes them whether or not there is room; negative where it follows
-- reply   one MessagePack array of integers: now_us, then for each take and each of its buckets: remaining tokens,
--         retry_after_us (0 where allowed, -1 where it never fits), full_after_us
--         A take was made where each of its buckets allowed it and the one that it follows was allowed too; a
--         bucket always allows a refund and a charge.
-- value   "<credits> <unit> <at_us>": a token costs `unit` credits, `at_us` is when the credits were counted;
--         credits below 0 are a debt
-- units   tokens are whole; a token is worth period_us credits; times are microseconds of this Redis's TIME
--
-- Atomic since the credits that a take sees must still be there when it writes. Everything is decided before
-- anything is written: a Redis that refuses writes refuses the first, and nothing is half done.
-- Every number is an integer between -2^53 and 2^53, exact in a Lua number; a sum or product that may be larger is
-- only compared with one that is not, and rounding keeps that order.
-- Every client waits while this runs. Most of its time goes into objects that Lua has to make, keep and collect,
-- so numbers travel packed, there are few tables, and a number becomes text only to be written.

local match, format, call = string.match, string.format, redis.call
local KEYS = KEYS
-- Below this, integers are exact. Adding 0 makes a number of a string, more quickly than tonumber.
local EXACT = 9007199254740992

-- floor(credits * to / from): credits of which a token costs `from`, in a unit of which it costs `to`. Exact between
-- -2^53 and 2^53; what lies beyond only stays there.
local function convert(credits, from, to)
  local amount = credits < 0 and -credits or credits
  local quotient, rest
  local product = amount * to
  if product < EXACT then
    rest = product % from
    quotient = (product - rest) / from
  else
    -- floor(part * to / from) bit by bit of `to`, as the product would not be exact. `rest` stays below `from`, so
    -- its double is even or below 2^53 and exact, and a sum that could reach `from` is never formed.
    local part = amount % from
    local bit = EXACT / 2
    quotient, rest = 0, 0
    while bit >= 1 do
      quotient, rest = quotient * 2, rest * 2
      if rest >= from then
        quotient, rest = quotient + 1, rest - from
      end
      if to % (bit * 2) >= bit then
        if rest >= from - part then
          quotient, rest = quotient + 1, rest - (from - part)
        else
          rest = rest + part
        end
      end
      bit = bit / 2
    end
    quotient = (amount - part) / from * to + quotient
  end
  if credits < 0 then
    return rest > 0 and -quotient - 1 or -quotient
  end
  return quotient
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = (now - now % 1000) / 1000 + (now % 1000 > 0 and 1 or 0)

local asked = cmsgpack.unpack(ARGV[1])
local tokens, period, capacity = {}, {}, {}
-- How a bucket of each unit is written at this instant: all but the credits is text already.
local written = {}
local arg = 2
for limit = 1, asked[1] do
  tokens[limit], period[limit], capacity[limit] = asked[arg], asked[arg + 1], asked[arg + 2] * asked[arg + 1]
  written[period[limit]] = format('%%d %d %d', period[limit], now)
  arg = arg + 3
end

-- What is kept of each key. Where nothing is, or nothing that counts, `credits` is false: the bucket is full.
local credits = call('MGET', unpack(KEYS))
local unit, at = {}, {}
for key = 1, #KEYS do
  local c, u, a
  if credits[key] then
    c, u, a = match(credits[key], '^(%-?%d+) (%d+) (%d+)$')
  end
  local counts = false
  if c then
    c, u, a = c + 0, u + 0, a + 0
    counts = c < EXACT and c > -EXACT and u > 0 and u < EXACT and a < EXACT
  end
  -- 0 where there is none: arrays without gaps are quicker.
  credits[key], unit[key], at[key] = counts and c, u or 0, a or 0
end

-- Microseconds until each changed key's bucket is full: 0 where it is, nil where nothing changed.
local changed = {}
local reply, last = { now }, 1
-- What the buckets of one take are short of being full, in credits: more than their capacity in debt.
local missing, waits = {}, {}
-- Whether the last take that follows none was allowed.
local led = true

-- Lua searches for an array's end each time that it is asked.
local last_arg = #asked
while arg <= last_arg do
  local count = asked[arg]
  local follows = count < 0
  count = follows and -count or count
  -- A refund and a charge are always allowed.
  local always = count > 128
  local refund = always and count < 256
  count = always and count % 128 or count
  local allowed = true

  for b = 1, count do
    local place = arg + 3 * b
    local key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
    local price, full = period[limit], capacity[limit]
    local lacks = 0
    local before = credits[key]
    if before then
      if unit[key] ~= price then
        before = convert(before, unit[key], price)
      end
      lacks = full - before
      -- A debt that could not be counted any more is forgiven.
      if lacks >= EXACT then
        lacks = EXACT - 1
      end
      local earned = (now - at[key]) * tokens[limit]
      -- Below 0 where the clock went back.
      if earned > 0 then
        lacks = lacks - earned
      end
      if lacks < 0 then
        lacks = 0
      end
    end
    local wait = 0
    -- A cost of 0 asks for nothing, even of a bucket in debt.
    local short = cost * price - full + lacks
    if short > 0 and cost > 0 and not always then
      allowed = false
      if cost * price > full then
        wait = -1
      else
        local rest = short % tokens[limit]
        wait = (short - rest) / tokens[limit] + (rest > 0 and 1 or 0)
      end
    end
    missing[b], waits[b] = lacks, wait
  end

  -- A take that follows one that was denied only looks.
  local made = allowed and (led or not follows)
  if not follows then
    led = allowed
  end

  for b = 1, count do
    local place = arg + 3 * b
    local key, limit, cost = asked[place - 2], asked[place - 1], asked[place]
    local lacks = missing[b]
    local price, rate = period[limit], tokens[limit]
    -- A bucket counted in the future is kept anew even where nothing is taken: the clock went back.
    local change = at[key] > now
    if made and cost > 0 then
      change = true
      if refund then
        lacks = cost * price < lacks and lacks - cost * price or 0
      else
        lacks = lacks + cost * price
        if lacks >= EXACT then
          lacks = EXACT - 1
        end
      end
    end
    local rest = lacks % rate
    local full_after = (lacks - rest) / rate + (rest > 0 and 1 or 0)
    local level = capacity[limit] - lacks
    if change and lacks > 0 then
      credits[key], unit[key], at[key], changed[key] = level, price, now, full_after
    elseif change and credits[key] then
      credits[key], changed[key] = false, 0
    end
    reply[last + 1] = level > 0 and (level - level % price) / price or 0
    reply[last + 2] = waits[b]
    reply[last + 3] = full_after
    last = last + 3
  end
  arg = arg + 1 + 3 * count
end

-- A key lives at least until its bucket is full. Both terms are rounded up to the milliseconds of PXAT.
for key = 1, #KEYS do
  local full_after = changed[key]
  if full_after and full_after > 0 then
    local rest = full_after % 1000
    local expire_ms = now_ms + (full_after - rest) / 1000 + (rest > 0 and 1 or 0)
    call('SET', KEYS[key], format(written[unit[key]], credits[key]), 'PXAT', format('%d', expire_ms))
  elseif full_after then
    call('DEL', KEYS[key])
  end
end

return cmsgpack.pack(reply)
