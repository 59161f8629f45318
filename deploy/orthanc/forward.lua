-- Orthanc sends the node every radiograph that somebody stores, and nothing that the node sends back.
--
-- SendToModality() would log a failure and forget the image. Here what waits is kept in a file, one
-- is sent at a time, and what the node did not take is tried again with each beat
-- (LuaHeartBeatPeriod, Orthanc 1.11.1) and when Orthanc starts. What came is read from Orthanc's
-- list of changes, as far as which is in the file too, so that nothing depends on how Orthanc ends.
local NODE = 'SPINEXR' -- in DicomModalities
local CLASSES = { -- what the node accepts
  ['1.2.840.10008.5.1.4.1.1.1'] = true, -- Computed Radiography
  ['1.2.840.10008.5.1.4.1.1.1.1'] = true, -- Digital X-Ray, for presentation
  ['1.2.840.10008.5.1.4.1.1.1.1.1'] = true, -- Digital X-Ray, for processing
}
local MOST_FAILURES = 3 -- from one beat to the next
local MOST_UNNOTED = 1000 -- changes that would be read again
local FOLDER = GetOrthancConfiguration()['StorageDirectory'] or 'OrthancStorage'
local FILE = FOLDER .. '/forward-' .. NODE

local last -- the number of the last change that was read
local noted -- the one in the file
local waiting = {} -- { id, tries }: instances that the node does not have
local job, sent -- what is being sent: the job's ID, and the entry
local failures = 0

local function Write()
  local lines = { string.format('%d', last) }
  for _, entry in ipairs(waiting) do
    table.insert(lines, string.format('%s %d', entry.id, entry.tries))
  end
  local file = assert(io.open(FILE .. '.new', 'w'))
  assert(file:write(table.concat(lines, '\n'), '\n'))
  assert(file:close())
  if not os.rename(FILE .. '.new', FILE) then
    os.remove(FILE) -- Windows renames to no file that is there
    assert(os.rename(FILE .. '.new', FILE))
  end
  noted = last
end

local function LastChange()
  return ParseJson(RestApiGet('/changes?last', true))['Last']
end

local function Wanted(instance)
  local class = RestApiGet('/instances/' .. instance .. '/metadata/SopClassUid', true)
  return not class or CLASSES[class] -- what could not be asked about is looked at later
end

-- For the first time, what is there already is not sent, other than what is stored right now.
local function Read(stored)
  local now = LastChange()
  local file = io.open(FILE, 'r') or io.open(FILE .. '.new', 'r')
  if not file then
    last = now
    if stored and Wanted(stored) then
      table.insert(waiting, { id = stored, tries = 0 })
    end
    Write()
    return
  end
  last = math.min(file:read('*n') or 0, now) -- of a damaged file, all; of a new database, what comes
  noted = last
  for line in file:lines() do
    local id, tries = line:match('^(%S+) (%d+)$')
    if id then
      table.insert(waiting, { id = id, tries = tonumber(tries) })
    end
  end
  file:close()
end

local function Collect()
  local more, page = false, nil
  repeat
    page = ParseJson(RestApiGet(string.format('/changes?since=%d&limit=100', last), true))
    for _, change in ipairs(page['Changes']) do
      if change['ChangeType'] == 'NewInstance' and Wanted(change['ID']) then
        table.insert(waiting, { id = change['ID'], tries = 0 })
        more = true
      end
    end
    last = page['Last']
  until page['Done']
  if more or last - noted > MOST_UNNOTED then
    Write()
  end
end

-- The place of the one that was tried least, and first among these.
local function Next()
  local best
  for place, entry in ipairs(waiting) do
    if not best or entry.tries < waiting[best].tries then
      best = place
    end
  end
  return best
end

local function Remove(entry)
  for place, other in ipairs(waiting) do
    if other == entry then
      table.remove(waiting, place)
    end
  end
  Write()
end

local function Settle(state)
  job = nil
  if state == 'Success' then
    failures = 0
    Remove(sent)
  else
    failures = failures + 1
    sent.tries = sent.tries + 1
    Write()
  end
end

-- A job that somebody cancels or removes tells nobody.
local function CheckJob()
  local answer = job and RestApiGet('/jobs/' .. job, true)
  local state = answer and ParseJson(answer)['State']
  if job and (not answer or state == 'Success' or state == 'Failure') then
    Settle(state)
  end
end

-- As a job, so that nobody who stores waits for the node.
local function Send()
  while not job and #waiting > 0 and failures < MOST_FAILURES do
    sent = waiting[Next()]
    if RestApiGet('/instances/' .. sent.id, true) then
      local order = DumpJson({ Resources = { sent.id }, Asynchronous = true })
      local answer = RestApiPost('/modalities/' .. NODE .. '/store', order, true)
      if not answer then
        return
      end
      job = ParseJson(answer)['ID']
    elseif RestApiGet('/changes?last', true) then -- the database answers: it was deleted
      Remove(sent)
    else
      return
    end
  end
end

local function Forward(stored)
  if not last then
    Read(stored)
  end
  Collect()
  CheckJob()
  Send()
end

-- An error in the beat would end Orthanc.
local function Try(what, ...)
  local done, why = pcall(what, ...)
  if not done then
    print('forward.lua: ' .. tostring(why))
  end
end

function Initialize()
  Try(Forward)
end

function OnStoredInstance(instance)
  Try(Forward, instance)
end

function OnHeartBeat()
  failures = 0
  Try(Forward)
end

function OnJobSuccess(id)
  if id == job then
    Try(Settle, 'Success')
    Try(Send)
  end
end

function OnJobFailure(id)
  if id == job then
    Try(Settle, 'Failure')
    Try(Send)
  end
end
