printf '#!/bin/sh\necho tool %s\n' "$PAWL_VERSION" >tool
