/** Owns what the holder of the token may do, by the event `caller`: `{name, role, writes}`. */

const ROLES = ['view', 'operate', 'admin'];

/** Whether the caller's role is this one, or one that includes it. */
export function mayHave(caller, role) {
  return ROLES.indexOf(caller?.role) >= ROLES.indexOf(role);
}

/** Whether operations on what runs may be asked for. */
export function mayOperate(caller) {
  return mayHave(caller, 'operate') && caller.writes;
}

/** Whether mappings may be changed. */
export function mayChange(caller) {
  return mayHave(caller, 'admin') && caller.writes;
}
