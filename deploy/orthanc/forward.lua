-- Orthanc sends the node every radiograph that somebody stores, and nothing that the node sends back.
function OnStoredInstance(instanceId, tags, metadata, origin)
  local modality = tags['Modality']
  if modality == 'CR' or modality == 'DX' or modality == 'RG' then
    -- As a job: whoever stores does not wait, and Orthanc tries again itself.
    SendToModality(instanceId, 'SPINEXR')
  end
end
