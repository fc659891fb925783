//! Presences of writers: any bytes, under the name that they would have.
#![no_main]

use drystone_format::RegistrationId;
use drystone_format::id::object_hash;
use drystone_format::presence::Presence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (secrets, registration) = (drystone_fuzz::secrets(), RegistrationId([0xaa; 16]));
    let _ = Presence::verify(secrets, (&registration, 0, &object_hash(data)), data);
});
