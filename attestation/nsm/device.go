package nsm

// Path is where the driver of the security module puts its device.
const Path = "/dev/nsm"

// Open opens the device of the enclave that the program runs in, and keeps it
// open until Close. Its error says what is missing; where there is no device it
// matches fs.ErrNotExist, on other systems errors.ErrUnsupported. Waiting does
// not help against either.
func Open() (Module, error) { return openDevice(Path) }
