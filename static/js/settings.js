// What somebody chose, for the next visit. A browser that keeps nothing forgets it; that is no fault.

export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // private windows and full stores
  }
}
