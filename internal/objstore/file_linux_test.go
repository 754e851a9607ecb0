package objstore

var renameNewForTest = renameNew
