-- Orthanc sends the node every radiograph that somebody stores, and nothing that the node sends back.
--
-- SendToModality() would log a failure and forget the image. Here what waits is kept in a file, one
-- is sent at a time, and what the node did not take is tried again: with each beat
-- (LuaHeartBeatPeriod, Orthanc 1.11.1), with each object that is stored, and when Orthanc starts.
-- What came is read from Orthanc's list of changes, as far as which is in the file too; so nothing
-- is lost however Orthanc ends. What is sent twice for that, the node takes for what it is.
local NODE = 'SPINEXR' -- in DicomModalities
local MODALITIES = { CR = true, DX = true, RG = true }
local MOST_FAILURES = 3 -- then the next beat goes on behind them
local FILE = GetOrthancConfiguration()['StorageDirectory'] .. '/forward-' .. NODE

local last -- the number of the last change that was read
local waiting = {} -- instances that the node does not have, the next one first
local job -- which sends the first of them
local failures = 0

local function Read()
  local file = io.open(FILE, 'r')
  if not file then -- for the first time: what is there already is not sent
    last = ParseJson(RestApiGet('/changes?last', true))['Last']
    return
  end
  last = file:read('*n') or 0 -- of a damaged file, all
  for instance in file:lines() do
    if instance ~= '' then
      table.insert(waiting, instance)
    end
  end
  file:close()
end

local function Write()
  local file = assert(io.open(FILE .. '.new', 'w'))
  assert(file:write(string.format('%d\n', last), table.concat(waiting, '\n'), '\n'))
  assert(file:close())
  assert(os.rename(FILE .. '.new', FILE))
end

local function Collect()
  if not last then
    Read()
  end
  local page
  repeat
    page = ParseJson(RestApiGet(string.format('/changes?since=%d&limit=100', last), true))
    for _, change in ipairs(page['Changes']) do
      local path = '/instances/' .. change['ID'] .. '/content/0008-0060'
      if change['ChangeType'] == 'NewInstance' and MODALITIES[RestApiGet(path, true) or ''] then
        table.insert(waiting, change['ID'])
      end
    end
    last = page['Last']
  until page['Done']
  Write()
end

-- As a job, so that nobody who stores waits for the node.
local function Send()
  while not job and #waiting > 0 and failures < MOST_FAILURES do
    if RestApiGet('/instances/' .. waiting[1], true) then
      local order = DumpJson({ Resources = { waiting[1] }, Asynchronous = true })
      local answer = RestApiPost('/modalities/' .. NODE .. '/store', order, true)
      if not answer then
        return
      end
      job = ParseJson(answer)['ID']
    else -- deleted meanwhile
      table.remove(waiting, 1)
      Write()
    end
  end
end

local function Forward()
  failures = 0
  Collect()
  Send()
end

Initialize, OnStoredInstance, OnHeartBeat = Forward, Forward, Forward

function OnJobSuccess(id)
  if id == job then
    job, failures = nil, 0
    table.remove(waiting, 1)
    Write()
    Send()
  end
end

function OnJobFailure(id)
  if id == job then
    job, failures = nil, failures + 1
    table.insert(waiting, table.remove(waiting, 1))
    Write()
    Send()
  end
end
